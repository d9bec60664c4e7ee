//! Paths known from other proxies and frameworks, mapped to the equivalent Pillion path. A 404 response suggests that
//! path.

use super::endpoints;

/// A path, or with `/*` all below it too, and ours. The table in docs/migration.md has the same rows, which a test holds.
const PATHS: &[(&str, &str)] = &[
    ("/healthz", "/live"),
    ("/livez", "/live"),
    ("/liveness", "/live"),
    ("/ping", "/live"),
    ("/-/healthy", "/live"),
    ("/health/live", "/live"),
    ("/health/liveness", "/live"),
    ("/health/startup", "/live"),
    ("/startupz", "/live"),
    ("/readyz", "/ready"),
    ("/readiness", "/ready"),
    ("/health/ready", "/ready"),
    ("/health/readiness", "/ready"),
    ("/actuator/health/liveness", "/live"),
    ("/actuator/health/readiness", "/ready"),
    ("/healthz/ready", "/ready"),
    ("/healthz/live", "/live"),
    ("/health/detailed", "/health"),
    ("/health/details", "/health"),
    ("/health/full", "/health"),
    ("/health/status", "/health"),
    ("/healthcheck/*", "/health"),
    ("/health-check/*", "/health"),
    ("/status/*", "/health"),
    ("/clusters", "/health/upstream"),
    ("/reverse_proxy/upstreams", "/health/upstream"),
    ("/upstreams/*", "/health/upstream"),
    ("/prometheus", "/metrics"),
    ("/metrics/*", "/metrics"),
    ("/stats/*", "/metrics"),
    ("/nginx_status", "/metrics"),
    ("/stub_status", "/metrics"),
    ("/server-status", "/metrics"),
    ("/internal/metrics/*", "/metrics"),
    ("/internal/performance/*", "/performance/routes"),
    ("/performance/*", "/performance/routes"),
    ("/internal/slow-queries", "/performance/slow"),
    ("/internal/errors", "/performance/errors"),
    ("/debug/*", "/performance/system"),
    ("/server_info", "/performance/system"),
    ("/memory", "/performance/system"),
    ("/api-docs/*", "/api"),
    ("/docs/*", "/api"),
    ("/redoc", "/api"),
    ("/swagger/*", "/api"),
    ("/swagger-ui/*", "/api"),
    ("/api-docs.json", "/openapi.json"),
    ("/v3/api-docs/*", "/openapi.json"),
    ("/swagger.json", "/openapi.json"),
    ("/openapi", "/openapi.json"),
    ("/openapi.yaml", "/openapi.json"),
    ("/openapi.yml", "/openapi.json"),
    ("/dashboard/*", "/"),
    ("/admin/*", "/"),
    ("/ui/*", "/"),
    ("/cache/*", "/cache/stats"),
    ("/internal/cache/*", "/cache/stats"),
    ("/cache/clear", "/cache/purge"),
    ("/cache/flush", "/cache/purge"),
    ("/cache/invalidate/*", "/cache/purge"),
    ("/purge/*", "/cache/purge"),
    ("/rate-limit/*", "/limits/top"),
    ("/rate-limits/*", "/limits/top"),
    ("/ratelimit/*", "/limits/top"),
    ("/internal/rate-limit/*", "/limits/top"),
    ("/limits/*", "/limits/top"),
    ("/-/reload", "/reload"),
    ("/load", "/reload"),
    ("/actuator/refresh", "/reload"),
    ("/drain_listeners", "/drain"),
    ("/healthcheck/fail", "/drain"),
    ("/-/quit", "/quit"),
    ("/quitquitquit", "/quit"),
    ("/stop", "/quit"),
    ("/shutdown", "/quit"),
    ("/actuator/shutdown", "/quit"),
];

/// Prefixes that other products put before paths that are otherwise spelled as in Pillion.
const PREFIXES: [&str; 10] = [
    "/internal",
    "/admin",
    "/management",
    "/actuator",
    "/_pillion",
    "/pillion",
    "/api/v1",
    "/api",
    "/v1",
    "/-",
];

/// Returns the method and Pillion's path for a path known from another product.
pub(super) fn ours(path: &str) -> Option<String> {
    let path = path.trim_end_matches('/').to_ascii_lowercase();
    let shown = |path: &str| {
        let (endpoint, _) = endpoints::find(path)?;
        Some(format!("{} {path}", endpoint.method()))
    };
    let exact = PATHS.iter().find(|(known, _)| *known == path);
    if let Some((_, ours)) = exact {
        return shown(ours);
    }
    let below = PREFIXES.iter().filter_map(|prefix| path.strip_prefix(prefix));
    let plain = |rest: &str| {
        let known = PATHS.iter().find(|(known, _)| *known == rest);
        known.and_then(|(_, ours)| shown(ours)).or_else(|| shown(rest))
    };
    if let Some(found) = below.filter(|rest| rest.starts_with('/')).find_map(plain) {
        return Some(found);
    }
    let nearest = PATHS
        .iter()
        .filter(|(known, _)| {
            known.strip_suffix("/*").is_some_and(|folder| {
                path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        })
        .max_by_key(|(known, _)| known.len());
    nearest.and_then(|(_, ours)| shown(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n5_4_paths_known_from_elsewhere() {
        for (path, wanted) in [
            ("/internal/performance/metrics", Some("GET /performance/routes")),
            ("/internal/performance/slow", Some("GET /performance/slow")),
            ("/internal/performance", Some("GET /performance/routes")),
            ("/internal/performance/", Some("GET /performance/routes")),
            ("/health/detailed", Some("GET /health")),
            ("/Health/Detailed", Some("GET /health")),
            ("/healthcheck/fail", Some("POST /drain")),
            ("/healthcheck", Some("GET /health")),
            ("/api-docs", Some("GET /api")),
            ("/api-docs/index.html", Some("GET /api")),
            ("/actuator/metrics", Some("GET /metrics")),
            ("/actuator/prometheus", Some("GET /metrics")),
            ("/api/health", Some("GET /health")),
            ("/v1/health", Some("GET /health")),
            ("/healthz/ready", Some("GET /ready")),
            ("/api/purge", None),
            ("/actuator/health/readiness", Some("GET /ready")),
            ("/swagger-ui/index.html", Some("GET /api")),
            ("/cache/clear", Some("POST /cache/purge")),
            ("/-/reload", Some("POST /reload")),
            ("/api-docsx", None),
            ("/nowhere", None),
            ("/", None),
        ] {
            assert_eq!(ours(path).as_deref(), wanted, "{path}");
        }
        for (known, path) in PATHS {
            assert!(endpoints::find(path).is_some(), "{known}: there is no {path}");
            let known = known.trim_end_matches("/*");
            assert!(ours(known).is_some(), "{known}");
        }
    }
}
