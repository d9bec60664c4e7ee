pillion run
