//! Keys for tests, made once with openssl 3.0 (`genpkey`, `pkey -pubout`, `rsa -RSAPublicKey_out`, `req -x509`), and
//! the published examples of RFC 7515 and RFC 8037. Only these tests ever trusted the keys; they must not be used
//! elsewhere.

/// The RSA private key, 2048 bits, PKCS#8, which signs in the tests.
pub(super) const RSA_PRIVATE: &str = "\
-----BEGIN PRIVATE KEY-----
MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQDUOQovTU/nBvdB
T0YJ80jxuqQP+vvXE3YjNRu8bIsHEf0bdzmQyYQ0bYiUG1ok3igzqNaFs0fdUqTK
KfkhlE+k9R+pkNNF5FvoDYr6ZLAcwOlt8gnRAY54JI5NAdGq2/VQgSpTlLwLFpCv
StdiUkXMmkGaj5GlyAxINtF7mS8NWdHWpXi404KJsY5eLnC1CMKVcl7rLGhbfNlb
O9/toVRwGyJjlCkfefHUGNR1GcA8MlvtPLXwrXl9yExnCNboPa/E5rbbIchdaDmZ
sXVDEB7XxYHv8TrvVpxbDO1YG1B31Ui2mxqqc0WH+OPDi0YiI87s6S/iOBjUH6ub
p2R9SfUNAgMBAAECggEAJ30Hlp6hoADNUCMyipZwu735Whne83mlEU8H/qsJwYKI
4KvyE61Tgrfg4oImZ1bJDze61vzxgc6naBCgUS26Fh0gS5ptnYMs0MR4WDgVBvyk
UrdnOTM7ccKHke+lNlAgWN734754sO19dYiNBDf/0d7gFyTguoK7OlKs7v0lYqu9
mYIG/VXEx16KYFkaX+b5GS5mkhh6mZYdKgZT/BLCoBlLnFFvbGZAKgrJZEV6nsRs
hm6WbOZXDbFOP3Z67gPxWBqyrAgPa+yUkUh1MzZpKywaSyO+Gix//yXkIzxh+onM
nxq2Ji5UBpIArBopf91nvlZPLu7HgBrnogDkhhnUcQKBgQDu9Rst58TGw5aO5lPd
Q9TWCRiqP3lS6bT0zkh0KMNxc43NDKxA9XZHZZ8HicEOih9NXD7mr+X2VBDPVIvM
X4z414TtGeVKFQcSs3AB/LtnuTPS9WJ5V6tcdNadlJWpZ5wplDdNGUjIvY+dDjX6
HzGoLeu9cuxdyufcl16PpLwTuQKBgQDjW8/KNJns99zigAVCu/ZcoIOntSKIKONu
MFGwrktHAs9HWF/bMaGTBKPnSQ/vNeulkpL1NXKw2otaFOXZ72FtOuiULPp16CWw
cutQ6n6RRxR7Rzk8YfduDKcfUdAMKuuksbvqhM0wnpO9dsROX2bBTW1Jg6DekbeJ
N3m+pVg99QKBgGedvRVgxMDzmtuIIKF3glj1RM6+C1van27v7BcCfg058CkT77WT
OqCm/hiEsUQevIgNEfFyIKN5vHhKzvvmCvj0a11stzIygAip6k3SS2kks8YsRXEc
hN/ogg9+mI8GsH6PGJPD/P2exSFzQhCdaijlEK3roXbiPzw2Hvjmk+9xAoGBANlc
SjB3z3zkjpEgcWcWifaOIq/wFR51cNFEcqTmTOOLxRzhWWsWbPFAK26PxCMeurXl
hofVXFvF5BnwBrsvB0bFXdtjkOOuWHHzvBL0zKIZgXRGaGrZAhN9Fz1zGuK3Geev
YAdahUzpHjexVwXSYUuGuWfh5qdCSmRt2/+u1ckNAoGBAIUIuh5JKfIlTGQuE9xC
llqUYs6Zy6aYLx6UTJAQ+iUzxmg/l2xN76A5IUbOa6CEqmgZFR5/6EqBcHkRU9b1
K8MrTPzEuGg9fbzl9xLQc20cpaYhCEFpf93ExbYt/+3f/cCT3iQc+IRbEu2rA4eJ
gzw4uS+FVXwBvHLMgDSY1bXK
-----END PRIVATE KEY-----
";

pub(super) const RSA_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA1DkKL01P5wb3QU9GCfNI
8bqkD/r71xN2IzUbvGyLBxH9G3c5kMmENG2IlBtaJN4oM6jWhbNH3VKkyin5IZRP
pPUfqZDTReRb6A2K+mSwHMDpbfIJ0QGOeCSOTQHRqtv1UIEqU5S8CxaQr0rXYlJF
zJpBmo+RpcgMSDbRe5kvDVnR1qV4uNOCibGOXi5wtQjClXJe6yxoW3zZWzvf7aFU
cBsiY5QpH3nx1BjUdRnAPDJb7Ty18K15fchMZwjW6D2vxOa22yHIXWg5mbF1QxAe
18WB7/E671acWwztWBtQd9VItpsaqnNFh/jjw4tGIiPO7Okv4jgY1B+rm6dkfUn1
DQIDAQAB
-----END PUBLIC KEY-----
";

/// The public part of the RSA key, PKCS#1.
pub(super) const RSA_PKCS1: &str = "\
-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEA1DkKL01P5wb3QU9GCfNI8bqkD/r71xN2IzUbvGyLBxH9G3c5kMmE
NG2IlBtaJN4oM6jWhbNH3VKkyin5IZRPpPUfqZDTReRb6A2K+mSwHMDpbfIJ0QGO
eCSOTQHRqtv1UIEqU5S8CxaQr0rXYlJFzJpBmo+RpcgMSDbRe5kvDVnR1qV4uNOC
ibGOXi5wtQjClXJe6yxoW3zZWzvf7aFUcBsiY5QpH3nx1BjUdRnAPDJb7Ty18K15
fchMZwjW6D2vxOa22yHIXWg5mbF1QxAe18WB7/E671acWwztWBtQd9VItpsaqnNF
h/jjw4tGIiPO7Okv4jgY1B+rm6dkfUn1DQIDAQAB
-----END RSA PUBLIC KEY-----
";

/// A certificate for the RSA key.
pub(super) const RSA_CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIC+TCCAeGgAwIBAgIUOni9QZYqdY/ZldD/5JSfHVV5XEowDQYJKoZIhvcNAQEL
BQAwDDEKMAgGA1UEAwwBdDAeFw0yNjExMjQxODI5NDlaFw0zNjExMjExODI5NDla
MAwxCjAIBgNVBAMMAXQwggEiMA0GCSqGSIb3DQEBAQUAA4IBDwAwggEKAoIBAQDU
OQovTU/nBvdBT0YJ80jxuqQP+vvXE3YjNRu8bIsHEf0bdzmQyYQ0bYiUG1ok3igz
qNaFs0fdUqTKKfkhlE+k9R+pkNNF5FvoDYr6ZLAcwOlt8gnRAY54JI5NAdGq2/VQ
gSpTlLwLFpCvStdiUkXMmkGaj5GlyAxINtF7mS8NWdHWpXi404KJsY5eLnC1CMKV
cl7rLGhbfNlbO9/toVRwGyJjlCkfefHUGNR1GcA8MlvtPLXwrXl9yExnCNboPa/E
5rbbIchdaDmZsXVDEB7XxYHv8TrvVpxbDO1YG1B31Ui2mxqqc0WH+OPDi0YiI87s
6S/iOBjUH6ubp2R9SfUNAgMBAAGjUzBRMB0GA1UdDgQWBBSZnJYB8+P39JDqZFQd
bHfLGvSe8jAfBgNVHSMEGDAWgBSZnJYB8+P39JDqZFQdbHfLGvSe8jAPBgNVHRMB
Af8EBTADAQH/MA0GCSqGSIb3DQEBCwUAA4IBAQBlqhvTyEiH85bx6erboKVV2i2H
vO+PiKu0lsEo73QWWfVPzyHNMPY9Xk4Ndc+uUqsk7f9ZgtldCyU7hM9BcbUO207o
ImdRA1bCwnC9+eFxzS+3/BjWJdlVf/xsuFijPa2OIzdB04vKcTtIHtcYBpQxehUA
RgPXwwthCW/E+ZJBv1UvT9BUqpuh+82zUpSJ1AX74GZZUwy3grhFT8azycV782Zm
Fb5IYda4gVaUwFLV8hHVnXh9/2xMcrK43XBRfTMsnSC1MtiYKnQElQR3wB2ArRz0
tTvQ5TSKo5I8uQUSRroAGW/+M4uoHaPgNJlRMtLAPn8cBBnK33SdMwCkjQKh
-----END CERTIFICATE-----
";

pub(super) const RSA_1024_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDUoNKTiwgbjuyD8WiLpHgvzeek
KP3Td2Paei10xlvsi7can8umzevQcV/4RzVj0uTNMeqmOi1v3Wl4w6smrXr288yE
XkKiwlxYVmeLR+WFxptKw/+t1RH0QIegmjFM0+FWNYyYOFHOQ2/EEdPp934KLBL2
vO/kPAizDC86mP+dkQIDAQAB
-----END PUBLIC KEY-----
";

/// A P-256 private key, PKCS#8.
pub(super) const P256_PRIVATE: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgmHGDyzc9veVb1eXa
0kyDX2WisvdB6zowZ4QK8+NHIK+hRANCAARc6RowharAO5m38Gq8hm3Tyx9U4non
ft6IAYTfE92oneLmwU+kQxsOBtQrJxkDmi6GQzJVKXdgT0ktEvla3+HF
-----END PRIVATE KEY-----
";

/// The same private key as SEC 1.
pub(super) const P256_SEC1_PRIVATE: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIJhxg8s3Pb3lW9Xl2tJMg19lorL3Qes6MGeECvPjRyCvoAoGCCqGSM49
AwEHoUQDQgAEXOkaMIWqwDuZt/BqvIZt08sfVOJ6J37eiAGE3xPdqJ3i5sFPpEMb
DgbUKycZA5ouhkMyVSl3YE9JLRL5Wt/hxQ==
-----END EC PRIVATE KEY-----
";

pub(super) const P256_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEXOkaMIWqwDuZt/BqvIZt08sfVOJ6
J37eiAGE3xPdqJ3i5sFPpEMbDgbUKycZA5ouhkMyVSl3YE9JLRL5Wt/hxQ==
-----END PUBLIC KEY-----
";

/// The public part of the P-256 key, with its point compressed.
pub(super) const P256_COMPRESSED: &str = "\
-----BEGIN PUBLIC KEY-----
MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgADXOkaMIWqwDuZt/BqvIZt08sfVOJ6
J37eiAGE3xPdqJ0=
-----END PUBLIC KEY-----
";

/// A public key of a curve that is not supported.
pub(super) const P384_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEv48FO1d8iv36NeMVd5IK8PE1pHXYoLTc
PKXoB5xYdo0QYoP3dstzkSYwSuZ3zuhwDmUF73RY79aniXkYMdYc4n3E0L40XR+3
IapFwvn0a0nuhIVcQsNUn6yQcj32iIZe
-----END PUBLIC KEY-----
";

/// An Ed25519 private key, PKCS#8.
pub(super) const ED25519_PRIVATE: &str = "\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIEI0MW+WiL3D7yLXtSP4jvNWYnQNKlO2ZaMasdoMeZPA
-----END PRIVATE KEY-----
";

pub(super) const ED25519_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAjUxmCK6Q4SfqXoFZSEliG0aIiQprGbjPqqsUoffJHYs=
-----END PUBLIC KEY-----
";

/// A certificate for the Ed25519 key.
pub(super) const ED25519_CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBLDCB36ADAgECAhRGVP8iv6C6IiMVIJcLwHQJtU1TMTAFBgMrZXAwDDEKMAgG
A1UEAwwBdDAeFw0yNjExMjQxODI5NDlaFw0zNjExMjExODI5NDlaMAwxCjAIBgNV
BAMMAXQwKjAFBgMrZXADIQCNTGYIrpDhJ+pegVlISWIbRoiJCmsZuM+qqxSh98kd
i6NTMFEwHQYDVR0OBBYEFOut9Osg7zvMuk/JXpAt+Uk31WofMB8GA1UdIwQYMBaA
FOut9Osg7zvMuk/JXpAt+Uk31WofMA8GA1UdEwEB/wQFMAMBAf8wBQYDK2VwA0EA
yyiDEen30W7cBQS+RKbtCOPXeVq+CIgt+YCpr6b4cWTxOT8W3f7c8iVl3wbKPVQI
sQujqpHqMKispmD6MQDpBQ==
-----END CERTIFICATE-----
";

/// The secret of RFC 7515 A.1.1.
pub(super) const RFC_7515_A1_SECRET: &str = "\
    AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";

/// The signature of RFC 7515 A.1.1.
pub(super) const RFC_7515_A1: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// The public key of RFC 7515 A.2.1.
pub(super) const RFC_7515_A2_KEY: &str = "{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"\
    ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4Ql\
    L-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUs\
    LA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoud\
    F8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ\"}";

/// The signature of RFC 7515 A.2.1.
pub(super) const RFC_7515_A2: &str = "\
    cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujG\
    bds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K\
    0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6\
    LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

/// The public key of RFC 7515 A.3.1.
pub(super) const RFC_7515_A3_KEY: &str = "{\"kty\":\"EC\",\"crv\":\"P-256\",\
    \"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\
    \"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}";

/// The signature of RFC 7515 A.3.1.
pub(super) const RFC_7515_A3: &str = "\
    DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

/// The public key of RFC 8037 A.2.
pub(super) const RFC_8037_A4_KEY: &str = "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\
    \"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}";

/// The whole of RFC 8037 A.4, signed over no claims.
pub(super) const RFC_8037_A4: &str = "\
    eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AI\
    bQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
