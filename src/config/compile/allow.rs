//! `allow` of routes, and routes that refuse requests by what a client can choose.

use ipnet::IpNet;

use super::Compiler;
use crate::config::file::Route;
use crate::policy::Action;
use crate::policy::when::When;

impl Compiler<'_> {
    /// `allow` of a route; `None` if it serves all clients.
    pub(super) fn allow(
        &mut self,
        raw: &Route,
        when: Option<&When>,
        action: &Action,
        written: &str,
    ) -> Option<Vec<IpNet>> {
        let wall = match (action, &raw.allow) {
            (Action::Deny(_), _) => Some("deny"),
            (_, Some(_)) => Some("allow"),
            _ => None,
        };
        if let (Some(_), Some(wall)) = (when, wall) {
            let message = format!(
                "route {written:?} has {wall} and when: it is no wall, because a client can send the same request \
                with or without what when names; write {wall} without when, or check the request in the app"
            );
            self.warn(raw.when.as_ref().map(|when| &when.span), message, "");
        }
        let list = raw.allow.as_ref()?;
        if let Some(deny) = &raw.deny {
            let help = "deny refuses every client: remove allow or deny";
            self.fail(deny.span.as_ref(), "a route with allow and deny", help);
        }
        if list.is_empty() {
            let help = "list networks like \"10.0.0.0/8\", or write deny = 403";
            self.fail(Some(&raw.span), "allow is empty: the route serves nobody", help);
        }
        Some(self.networks("allow", list))
    }
}
