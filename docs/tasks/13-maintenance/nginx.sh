nginx
nginx -s reload
