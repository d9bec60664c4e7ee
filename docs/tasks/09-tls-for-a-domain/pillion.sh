certbot certonly --standalone --domain app.example.com
pillion run
