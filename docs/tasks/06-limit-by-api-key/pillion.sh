pillion keys add --tier pro --file keys.toml > pro.key
pillion run
