nginx
