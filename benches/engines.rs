//! The pure parts on the way of every request: reading a head, normalising a path, finding a route.
//! `cargo bench --bench engines`.

#![allow(missing_docs, reason = "criterion makes its own entry points")]

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use http::Method;
use pillion::internals::normalise;
use pillion::internals::routes::Table;
use pillion::internals::{HeadLimits, parse_request};

const HEAD: &[u8] =
    b"GET /api/patients/7?fields=name HTTP/1.1\r\nhost: clinic.example\r\nuser-agent: bench/1.0\r\n\
    accept: application/json\r\naccept-encoding: gzip, br\r\nauthorization: Bearer abc.def.ghi\r\n\
    x-trace: 0123456789abcdef\r\nconnection: keep-alive\r\n\r\n";

fn heads(c: &mut Criterion) {
    let limits = HeadLimits { size: 64 * 1024, fields: 128 };
    c.bench_function("head of eight fields", |b| {
        b.iter(|| parse_request(&mut BytesMut::from(black_box(HEAD)), limits).map(|head| head.is_some()));
    });
}

fn paths(c: &mut Criterion) {
    c.bench_function("a plain path", |b| b.iter(|| normalise(black_box("/api/patients/7/visits")).is_ok()));
    c.bench_function("a path with escapes and dots", |b| {
        b.iter(|| normalise(black_box("/api/./%70atients//7/../8")).is_ok());
    });
}

fn table(count: usize) -> Table {
    Table::new((0..count).map(|at| format!("GET /api/service{at}/{{id}}/items/**")))
}

/// Routes of every form: prefixes, suffixes, and `**` in the middle and in front.
fn mixed(count: usize) -> Table {
    Table::new((0..count).map(|at| match at % 4 {
        0 => format!("GET /api/service{at}/{{id}}/items/**"),
        1 => format!("GET /@scope{at}-{{x}}/{{name}}"),
        2 => format!("GET /v{at}/**/blobs/{{digest}}"),
        _ => format!("GET /**/{{file}}.f{at}"),
    }))
}

/// The promise: ten thousand routes in at most 1.5 x the time of ten.
fn routes(c: &mut Criterion) {
    for count in [10, 10_000] {
        let table = table(count);
        let path = format!("/api/service{}/42/items/a/b", count - 1);
        c.bench_function(&format!("the last of {count} routes"), |b| {
            b.iter(|| table.find(&Method::GET, black_box("clinic.example"), black_box(&path)));
        });
        c.bench_function(&format!("none of {count} routes"), |b| {
            b.iter(|| table.find(&Method::GET, black_box("clinic.example"), black_box("/other/path")));
        });
        let table = mixed(count);
        for (form, path) in
            [("prefix", "/@scope5-x/core"), ("middle", "/v6/a/b/blobs/x"), ("suffix", "/a/b/c.f7")]
        {
            c.bench_function(&format!("a {form} among {count} mixed routes"), |b| {
                b.iter(|| table.find(&Method::GET, black_box("clinic.example"), black_box(path)));
            });
        }
    }
}

criterion_group!(benches, heads, paths, routes);
criterion_main!(benches);
