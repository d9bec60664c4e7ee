caddy reverse-proxy --from :8080 --to 127.0.0.1:3000
