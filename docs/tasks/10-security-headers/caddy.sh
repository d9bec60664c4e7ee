caddy run
