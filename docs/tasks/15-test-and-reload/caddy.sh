caddy run
caddy validate
caddy reload
