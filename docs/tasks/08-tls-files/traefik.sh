traefik --entryPoints.web.address=:8443 --providers.file.filename=traefik.toml
