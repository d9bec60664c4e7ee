nginx
certbot --nginx --domain app.example.com
