caddy reverse-proxy --from app.example.com --to 127.0.0.1:3000
