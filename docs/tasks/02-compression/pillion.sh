pillion run --upstream 3000
