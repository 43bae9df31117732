#!/bin/bash
# Has scheduler, workers and build talk only to who holds a certificate, which is made for you once: cluster-tls/.
# Usage, in the project's folder, before the other scripts: source docs/cluster/tls.sh
tls="$PWD/cluster-tls"
if [ ! -e "$tls/key.pem" ]; then
  (umask 077 && mkdir -p "$tls" && openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj /CN=ensemble \
    -keyout "$tls/key.pem" -out "$tls/certificate.pem")
fi
export DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME=tls DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$tls/certificate.pem"
for who in SCHEDULER WORKER CLIENT; do
  export "DASK_DISTRIBUTED__COMM__TLS__${who}__CERT=$tls/certificate.pem"
  export "DASK_DISTRIBUTED__COMM__TLS__${who}__KEY=$tls/key.pem"
done
