pillion run --upstream 3000
pillion maintenance on
