nginx
nginx -t
nginx -s reload
