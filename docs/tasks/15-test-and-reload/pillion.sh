pillion run
pillion check pillion.toml
pillion reload
