traefik --entryPoints.web.address=:443 --providers.file.filename=traefik.toml \
  --certificatesResolvers.acme.acme.email=admin@example.com --certificatesResolvers.acme.acme.storage=acme.json \
  --certificatesResolvers.acme.acme.tlsChallenge=true
