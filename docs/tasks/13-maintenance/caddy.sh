caddy run
caddy reload
