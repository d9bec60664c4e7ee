nginx
touch /etc/nginx/maintenance
