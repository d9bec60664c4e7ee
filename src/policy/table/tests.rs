//! The index finds what a walk down the list finds, in steps that do not depend on the number of routes.

use super::*;
use proptest::prelude::*;

fn table(patterns: &[&str]) -> RouteTable {
    let patterns: Vec<Pattern> = patterns.iter().map(|text| Pattern::parse(text).expect(text)).collect();
    RouteTable::new(&patterns)
}

#[test]
fn the_first_match_wins() {
    let table = table(&[
        "GET /api/reports/**",
        "* /api/{kind}/7",
        "POST,PUT /api/reports/7",
        "* admin.example.com/**",
        "* *.example.com/x",
        "GET /",
        "* /dir/",
        "* /api/**",
    ]);
    for (method, host, path, expected) in [
        ("GET", "a", "/api/reports", Some(0)),
        ("GET", "a", "/api/reports/7", Some(0)),
        ("POST", "a", "/api/reports/7", Some(1)),
        ("POST", "a", "/api/reports/8", Some(7)),
        ("GET", "admin.example.com:8080", "/any/where", Some(3)),
        ("GET", "Admin.Example.com", "/", Some(3)),
        ("GET", "b.c.example.com", "/x", Some(4)),
        ("GET", "example.com", "/x", None),
        ("GET", "a", "/", Some(5)),
        ("POST", "a", "/", None),
        ("GET", "a", "/dir/", Some(6)),
        ("GET", "a", "/dir", None),
        ("GET", "a", "/apix", None),
    ] {
        let method = Method::from_bytes(method.as_bytes()).expect(method);
        assert_eq!(table.find(&method, host, path, 0), expected, "{method} {host}{path}");
    }
    assert_eq!(table.find(&Method::GET, "a", "/api/reports/7", 1), Some(1), "after a rewrite by 0");
    assert_eq!(table.find(&Method::GET, "a", "/api/reports/7", 2), Some(7));
}

/// Returns whether a pattern matches a path, by trying every length of `**`.
fn matches(pattern: &Pattern, path: &str) -> bool {
    fn match_all(segments: &[Segment], given: &[&str]) -> bool {
        match (segments.split_first(), given.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some((Segment::Rest, below)), _) => {
                (0..=given.len()).any(|length| match_all(below, &given[length..]))
            }
            (Some((segment, below)), Some((first, rest))) => {
                let fits = match segment {
                    Segment::Literal(text) => text == first,
                    Segment::Name(named) => {
                        let (prefix, suffix) = (&*named.prefix, &*named.suffix);
                        first.len() > prefix.len() + suffix.len()
                            && first.starts_with(prefix)
                            && first.ends_with(suffix)
                    }
                    Segment::Rest => false,
                };
                fits && match_all(below, rest)
            }
            (Some(_), None) => false,
        }
    }
    let mut given: Vec<&str> = path.split('/').skip(1).collect();
    let directory = given.last() == Some(&"");
    if directory {
        given.pop();
    }
    let template = &pattern.template;
    let any_end = template.segments.last() == Some(&Segment::Rest) && !template.directory;
    (any_end || directory == template.directory) && match_all(&template.segments, &given)
}

/// Random templates: literals, names with and without prefix and suffix, and one `**` at most.
fn pattern() -> impl Strategy<Value = Pattern> {
    let segment = prop::sample::select(vec!["a", "b", "ab", "{}", "a{}", "{}b", "a{}b", "ab{}", "{}aa"]);
    let segments = prop::collection::vec(segment, 0..4);
    (segments, prop::option::of(0usize..4), any::<bool>()).prop_map(|(segments, rest, directory)| {
        let mut segments: Vec<String> = segments
            .into_iter()
            .enumerate()
            .map(|(at, segment)| segment.replace("{}", &format!("{{x{at}}}")))
            .collect();
        if let Some(rest) = rest {
            segments.insert(rest.min(segments.len()), "**".to_owned());
        }
        let end = if directory && !segments.is_empty() { "/" } else { "" };
        Pattern::parse(&format!("* /{}{end}", segments.join("/"))).expect("a template")
    })
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "c", "ab", "aab", "aa", "abb"]);
    (prop::collection::vec(segment, 0..6), any::<bool>()).prop_map(|(segments, directory)| {
        let end = if directory && !segments.is_empty() { "/" } else { "" };
        format!("/{}{end}", segments.join("/"))
    })
}

/// Routes whose conditions hold, and those that were asked about.
struct Chosen {
    holding: Vec<bool>,
    asked: Vec<Order>,
}

impl Condition for Chosen {
    fn holds(&mut self, order: Order) -> bool {
        self.asked.push(order);
        self.holding[order as usize]
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_index_finds_what_a_walk_down_the_list_finds(
        patterns in prop::collection::vec(pattern(), 0..12),
        path in path(),
        from in 0u32..4,
    ) {
        let naive = patterns.iter().enumerate().skip(from as usize).find(|(_, p)| matches(p, &path)).map(|(at, _)| at as u32);
        prop_assert_eq!(RouteTable::new(&patterns).find(&Method::GET, "h", &path, from), naive);
        for pattern in &patterns {
            prop_assert_eq!(pattern.template.takes(&path), matches(pattern, &path));
        }
    }

    /// Every condition before the result is evaluated, so that the outcomes say which route is the result.
    #[test]
    fn conditions_are_evaluated_up_to_the_route_that_is_found(
        routes in prop::collection::vec((pattern(), any::<bool>(), any::<bool>()), 0..12),
        path in path(),
    ) {
        let entries = (0..).zip(&routes).map(|(order, (pattern, conditional, _))| (order, pattern, *conditional));
        let table = RouteTable::with_conditions(entries);
        let holding = routes.iter().map(|(_, _, holds)| *holds).collect();
        let mut chosen = Chosen { holding, asked: Vec::new() };
        let found = table.find_where((&Method::GET, "h", &path), 0, &mut chosen);
        let naive = routes.iter().position(|(pattern, conditional, holds)| {
            matches(pattern, &path) && (*holds || !conditional)
        });
        prop_assert_eq!(found, naive.map(|at| at as u32));
        for (at, (pattern, conditional, _)) in routes.iter().enumerate() {
            let counts = *conditional && matches(pattern, &path) && naive.is_none_or(|naive| at <= naive);
            prop_assert!(!counts || chosen.asked.contains(&(at as u32)), "{} of {:?}", at, chosen.asked);
        }
    }

    /// A template that covers another matches all of its paths, and two that meet nowhere share none.
    #[test]
    fn templates_are_compared_as_they_match(one in pattern(), other in pattern(), path in path()) {
        let both = (one.template.takes(&path), other.template.takes(&path));
        prop_assert!(!one.covers(&other) || both.0 || !both.1, "{:?} {:?}", one, other);
        prop_assert!(one.template.may_meet(&other.template) || both != (true, true), "{:?} {:?}", one, other);
        if one.covers(&other) {
            let (method, host, path) = other.sample();
            prop_assert!(one.takes(&method, &host, &path) && other.takes(&method, &host, &path), "{} {:?}", path, one);
        }
        if both.0 {
            prop_assert_eq!(one.template.fill(&one.template, &path), path);
        }
    }
}

/// A table with `count` routes of every form.
fn table_of(count: usize) -> RouteTable {
    let texts = (0..count).flat_map(|at| {
        [
            format!("* /api/r{at}/{{id}}"),
            format!("* /@u{at}-{{x}}/p"),
            format!("* /{{x}}.e{at}/p"),
            format!("* /**/{{f}}.f{at}"),
            format!("* /**/blobs{at}/{{d}}"),
            format!("* /t{at}/**/tags/{{d}}"),
            format!("* h{at}.example.com/x/**"),
        ]
    });
    let patterns: Vec<Pattern> = texts.map(|text| Pattern::parse(&text).expect("a template")).collect();
    RouteTable::new(&patterns)
}

#[test]
fn a_search_among_ten_thousand_routes_takes_the_steps_of_one_among_ten() {
    // Seven routes each.
    let (few, many) = (table_of(10), table_of(1_500));
    for path in [
        "/api/r7/1",
        "/@u7-x/p",
        "/x.e7/p",
        "/a/b/x.f7",
        "/a/blobs7/x",
        "/t7/a/b/tags/1",
        "/x/y",
        "/none/of/these",
    ] {
        let [few, many] = [&few, &many].map(|table| {
            let mut always = Always;
            let mut search = Search::new(&Method::GET, 0, &mut always);
            table.search("h3.example.com", path, &mut search);
            search.steps.get()
        });
        // Prefixes and suffixes of more lengths are tried, never more of them.
        assert!((1..=few + 8).contains(&many), "{path}: {few} steps, then {many}");
    }
}
