//! The sample app of the demo: a clinic with patients, visits, billing, users and reports. Responses are of realistic
//! size, and writes change the data that reads return.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde_json::{Value, json};

/// Number of patients at the start.
const PATIENTS: u64 = 100;
/// Number of visits of each patient.
const VISITS: u64 = 3;
/// Number of items on one page of a list.
const PAGE: usize = 50;

const NAMES: [&str; 8] = ["Ada", "Grace", "Edsger", "Barbara", "Donald", "Radia", "Leslie", "Frances"];
const FAMILIES: [&str; 7] = ["Lovelace", "Hopper", "Dijkstra", "Liskov", "Knuth", "Perlman", "Allen"];
const CITIES: [&str; 5] = ["Oslo", "Bergen", "Lisbon", "Kyoto", "Quito"];
const REASONS: [&str; 4] = ["check-up", "vaccination", "blood test", "consultation"];

/// The response of the sample app.
pub(super) struct Reply {
    pub status: StatusCode,
    /// The JSON document; null stands for an empty body.
    pub body: Value,
}

impl Reply {
    fn ok(body: Value) -> Reply {
        Reply { status: StatusCode::OK, body }
    }

    fn error(status: StatusCode, error: &str) -> Reply {
        Reply { status, body: json!({ "error": error }) }
    }
}

/// The data of the clinic, by kind and by id.
pub(super) struct Clinic {
    tables: BTreeMap<&'static str, BTreeMap<u64, Value>>,
}

fn pick(from: &[&str], at: u64) -> String {
    from[usize::try_from(at).unwrap_or(0) % from.len()].to_owned()
}

impl Clinic {
    /// Fills the clinic with its initial patients, visits, bills and users.
    pub(super) fn new() -> Clinic {
        let mut clinic = Clinic { tables: BTreeMap::new() };
        for id in 1..=PATIENTS {
            let name = format!("{} {}", pick(&NAMES, id * 7), pick(&FAMILIES, id * 3));
            clinic.put("patients", id, json!({
                "id": id, "name": name, "born": format!("{}-{:02}-{:02}", 1940 + id % 70, id % 12 + 1, id % 28 + 1),
                "city": pick(&CITIES, id), "phone": format!("+47 555 {:05}", id * 379 % 100_000),
                "notes": "No known allergies. Prefers appointments in the morning.",
            }));
            for visit in 0..VISITS {
                let number = (id - 1) * VISITS + visit + 1;
                clinic.put("visits", number, json!({
                    "id": number, "patient": id, "on": format!("2026-{:02}-{:02}", visit * 4 % 12 + 1, id % 28 + 1),
                    "reason": pick(&REASONS, number), "minutes": 15 + number % 4 * 15,
                }));
                clinic.put("billing", number, json!({
                    "id": number, "patient": id, "visit": number, "amount": 40 + number % 9 * 15, "paid": !number.is_multiple_of(3),
                }));
            }
        }
        for (id, name) in (1..).zip(["Ann", "Bob", "Cai"]) {
            clinic.put("users", id, json!({ "id": id, "name": name, "role": "nurse" }));
        }
        clinic
    }

    fn put(&mut self, kind: &'static str, id: u64, value: Value) {
        self.tables.entry(kind).or_default().insert(id, value);
    }

    /// Responds to one request; `input` is the JSON body, if there is one.
    pub(super) fn respond(
        &mut self,
        method: &Method,
        path: &str,
        query: Option<&str>,
        input: Option<Value>,
    ) -> Reply {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let read = method == Method::GET || method == Method::HEAD;
        match parts[..] {
            [] if read => Reply::ok(
                json!({ "clinic": ["/api/patients", "/api/visits", "/api/billing", "/api/users", "/api/reports/{visits,billing}"] }),
            ),
            ["api", "reports", kind] if read => self.report(kind),
            ["api", "patients", id, below] if read => self.of_patient(id, below),
            ["api", kind] => match parse_kind(kind) {
                Some(kind) if read => self.list(kind, query),
                Some(kind) if method == Method::POST => self.create(kind, input),
                Some(_) => Reply::error(StatusCode::METHOD_NOT_ALLOWED, "GET or POST"),
                None => Reply::error(StatusCode::NOT_FOUND, "no such collection"),
            },
            ["api", kind, id] => match (parse_kind(kind), id.parse()) {
                (Some(kind), Ok(id)) => self.one(method, kind, id, input),
                _ => Reply::error(StatusCode::NOT_FOUND, "not found"),
            },
            _ => Reply::error(StatusCode::NOT_FOUND, "not found"),
        }
    }

    fn table(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.tables.get(kind).into_iter().flat_map(BTreeMap::values)
    }

    fn list(&self, kind: &str, query: Option<&str>) -> Reply {
        let page = query
            .into_iter()
            .flat_map(|query| query.split('&'))
            .find_map(|pair| pair.strip_prefix("page="))
            .and_then(|page| page.parse::<usize>().ok())
            .unwrap_or(1)
            .max(1);
        let items: Vec<&Value> = self.table(kind).skip((page - 1).saturating_mul(PAGE)).take(PAGE).collect();
        Reply::ok(json!({ "page": page, "total": self.table(kind).count(), "items": items }))
    }

    fn of_patient(&self, id: &str, below: &str) -> Reply {
        let (Ok(id), Some(kind @ ("visits" | "billing"))) = (id.parse::<u64>(), parse_kind(below)) else {
            return Reply::error(StatusCode::NOT_FOUND, "not found");
        };
        let items: Vec<&Value> = self.table(kind).filter(|item| item["patient"] == id).collect();
        Reply::ok(json!({ "patient": id, "items": items }))
    }

    fn create(&mut self, kind: &'static str, input: Option<Value>) -> Reply {
        let Some(Value::Object(mut item)) = input else {
            return Reply::error(StatusCode::BAD_REQUEST, "expected a JSON object");
        };
        let last = self.tables.get(kind).and_then(|table| table.keys().next_back()).copied();
        let id = last.unwrap_or(0) + 1;
        item.insert("id".to_owned(), id.into());
        let item = Value::Object(item);
        self.put(kind, id, item.clone());
        Reply { status: StatusCode::CREATED, body: item }
    }

    fn one(&mut self, method: &Method, kind: &'static str, id: u64, input: Option<Value>) -> Reply {
        let Some(item) = self.tables.get_mut(kind).and_then(|table| table.get_mut(&id)) else {
            return Reply::error(StatusCode::NOT_FOUND, "not found");
        };
        match *method {
            Method::GET | Method::HEAD => Reply::ok(item.clone()),
            Method::PUT | Method::PATCH => {
                let (Some(Value::Object(changes)), Value::Object(known)) = (input, &mut *item) else {
                    return Reply::error(StatusCode::BAD_REQUEST, "expected a JSON object");
                };
                known.extend(changes.into_iter().filter(|(key, _)| key != "id"));
                Reply::ok(item.clone())
            }
            Method::DELETE => {
                self.tables.get_mut(kind).map(|table| table.remove(&id));
                Reply { status: StatusCode::NO_CONTENT, body: Value::Null }
            }
            _ => Reply::error(StatusCode::METHOD_NOT_ALLOWED, "GET, PUT, PATCH or DELETE"),
        }
    }

    fn report(&self, kind: &str) -> Reply {
        match kind {
            "visits" => {
                let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
                for visit in self.table("visits") {
                    *by_reason.entry(visit["reason"].as_str().unwrap_or("other").to_owned()).or_default() +=
                        1;
                }
                Reply::ok(
                    json!({ "report": "visits", "total": self.table("visits").count(), "by_reason": by_reason }),
                )
            }
            "billing" => {
                let sum = |paid: bool| -> u64 {
                    self.table("billing")
                        .filter(|bill| bill["paid"] == paid)
                        .filter_map(|bill| bill["amount"].as_u64())
                        .sum()
                };
                Reply::ok(json!({ "report": "billing", "paid": sum(true), "open": sum(false) }))
            }
            _ => Reply::error(StatusCode::NOT_FOUND, "no such report"),
        }
    }
}

fn parse_kind(name: &str) -> Option<&'static str> {
    ["patients", "visits", "billing", "users"].into_iter().find(|kind| *kind == name)
}
