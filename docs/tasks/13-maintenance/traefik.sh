traefik --entryPoints.web.address=:8080 --providers.file.filename=traefik.toml
