//! Marks of what a list of settings does not show: values of secrets, contents of files, and the rules under which
//! responses are stored. A mark is an HMAC under a key that is made for one comparison. The side that has the marks of
//! the other answers only which differ, so an answer helps nobody to guess a secret.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use super::{Pairing, listing};
use crate::config::effective::Settings;
use crate::policy::Policy;

/// Length of the key in bytes.
const KEY_LENGTH: usize = 32;

/// A mark, in hexadecimal digits.
type Mark = String;

/// The marks of a configuration, with their key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Marks {
    key: String,
    /// Of each secret, by the full name of its setting.
    secrets: BTreeMap<String, Mark>,
    /// Of the contents of files, by the last part of their paths.
    files: BTreeMap<String, BTreeSet<Mark>>,
    /// Of the rules of routes: each with the place of the route that it is compared with.
    routes: Vec<(usize, Mark)>,
}

/// The differences.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Differing {
    /// Full names of settings that are secrets in both.
    pub secrets: Vec<String>,
    /// Names of files.
    pub files: Vec<String>,
    /// Places of routes in the configuration that answers; the number of its routes stands for requests that match none.
    pub routes: Vec<usize>,
}

/// The answer of a running process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Compared {
    /// The digest of the settings in force.
    pub digest: String,
    #[serde(flatten)]
    pub differing: Differing,
}

/// Returns the number of the rules under which responses of the route at a place are stored.
pub(crate) type Rules<'a> = &'a dyn Fn(usize) -> u64;

impl Marks {
    /// Marks a configuration under a fresh key, to be compared with an older one, whose places and names the marks have.
    pub(crate) fn new(
        settings: &Settings,
        policy: &Policy,
        pairing: &Pairing,
        rules: Rules<'_>,
    ) -> Result<Marks, ring::error::Unspecified> {
        let mut key = [0; KEY_LENGTH];
        SystemRandom::new().fill(&mut key)?;
        let marker = Marker(hmac::Key::new(hmac::HMAC_SHA256, &key));
        let places = pairing.old_places();
        Ok(Marks {
            key: hex(&key),
            secrets: marker.secrets(settings, &|key| renamed(key, &places)),
            files: marker.files(policy),
            routes: pairing.of_rules().map(|(other, this)| (other, marker.rules(rules(this)))).collect(),
        })
    }

    /// Compares the configuration that was marked with another one. The error says what is wrong with the marks.
    pub(crate) fn compare(
        &self,
        settings: &Settings,
        policy: &Policy,
        rules: Rules<'_>,
    ) -> Result<Differing, String> {
        let key = bytes(&self.key).filter(|key| key.len() == KEY_LENGTH);
        let key = key.ok_or_else(|| format!("key has not {} hexadecimal digits", 2 * KEY_LENGTH))?;
        let marker = Marker(hmac::Key::new(hmac::HMAC_SHA256, &key));
        let secrets = marker.secrets(settings, &|key| Some(key)).into_iter();
        let differs = |(key, mark): &(String, Mark)| self.secrets.get(key).is_some_and(|other| other != mark);
        let files = marker.files(policy);
        let none = BTreeSet::new();
        let is_another = |name: &&String| files.get(*name) != self.files.get(*name).or(Some(&none));
        let names: BTreeSet<&String> = files.keys().chain(self.files.keys()).collect();
        let is_there = |place: usize| place < policy.routes.routes.len();
        let has_other_rules =
            |(place, mark): &&(usize, Mark)| !is_there(*place) || marker.rules(rules(*place)) != *mark;
        Ok(Differing {
            secrets: secrets.filter(differs).map(|(key, _)| key).collect(),
            files: names.into_iter().filter(is_another).cloned().collect(),
            routes: self.routes.iter().filter(has_other_rules).map(|(place, _)| *place).collect(),
        })
    }
}

struct Marker(hmac::Key);

impl Marker {
    /// `purpose` and `name` are in the mark, so that equal values have different marks.
    fn mark(&self, purpose: &str, name: &str, value: &[u8]) -> Mark {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [purpose.as_bytes(), name.as_bytes(), value] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        hex(context.sign().as_ref())
    }

    fn secrets(
        &self,
        settings: &Settings,
        rename: &dyn Fn(String) -> Option<String>,
    ) -> BTreeMap<String, Mark> {
        let secrets = settings.all.iter().filter_map(|setting| {
            let secret = setting.secret.as_ref()?.expose().to_string();
            let key = rename(setting.key())?;
            let mark = self.mark("secret", &key, secret.as_bytes());
            Some((key, mark))
        });
        secrets.collect()
    }

    /// The first file is the configuration itself, which the settings show.
    fn files(&self, policy: &Policy) -> BTreeMap<String, BTreeSet<Mark>> {
        let mut files: BTreeMap<String, BTreeSet<Mark>> = BTreeMap::new();
        for file in policy.sources.iter().skip(1) {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let content = file.content.map_or([0; 17], |content| {
                let mut there = [1; 17];
                there[1..].copy_from_slice(&content.to_be_bytes());
                there
            });
            let mark = self.mark("file", &name, &content);
            files.entry(name).or_default().insert(mark);
        }
        files
    }

    fn rules(&self, rules: u64) -> Mark {
        self.mark("rules", "", &rules.to_be_bytes())
    }
}

/// Returns the full name of a setting in the older configuration; `None` in a route that is not there.
fn renamed(key: String, places: &HashMap<usize, usize>) -> Option<String> {
    match listing::place(&key, "routes") {
        Some((at, name)) => Some(format!("routes[{}].{name}", places.get(&at)?)),
        None => Some(key),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    (0..hex.len()).step_by(2).map(digits).collect()
}
