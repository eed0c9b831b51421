"""A small OpenID provider on loopback: discovery, keys, authorize, token, userinfo. It is as strict as it has to be, and lies
when it is told to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey
from joserfc.jws import JWSRegistry

CLIENT, SECRET = "the-pages", "a secret of the pages"


class Provider:
    """Signs in whoever ``claims`` describes."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.provider = self  # type: ignore[attr-defined]
        self.issuer = f"http://127.0.0.1:{self._server.server_port}/realm"
        self.keys: list[Any] = [RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})]
        #: Who signs in; what is None is left out of the token.
        self.claims: dict[str, Any] = {"email": "ana@example.com", "email_verified": True, "groups": ["finance"]}
        self.userinfo: dict[str, Any] = {"sub": "4711"}
        #: What discovery says besides, and which headers and key a token has.
        self.metadata: dict[str, Any] = {}
        self.algorithm, self.signs_with = "RS256", self.keys[0]
        #: Answers the token endpoint with this, in place of a token.
        self.says: tuple[int, Any] | None = None
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def agree(self, url: str) -> str:
        """What a person's browser does there, who signs in and agrees: the address they are sent back to."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query, strict_parsing=True).items()}
        assert url.startswith(f"{self.issuer}/authorize?") and asked["client_id"] == CLIENT
        assert asked["response_type"] == "code" and asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split() and asked["nonce"] and asked["state"]
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        """One token for one code, for whoever began it."""
        if self.says is not None:
            return self.says
        if authorization != "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode():
            return 401, {"error": "invalid_client"}
        asked = self._codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if asked is None or form.get("redirect_uri") != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant", "error_description": "no such code"}
        if challenge.decode().rstrip("=") != asked["code_challenge"]:
            return 400, {"error": "invalid_grant", "error_description": "another's code"}
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "sub": "4711",
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
        }
        claims = {name: value for name, value in {**claims, **self.claims}.items() if value is not None}
        return 200, {
            "access_token": "opaque",
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": self._sign(claims),
        }

    def _sign(self, claims: dict[str, Any]) -> str:
        header = {"alg": self.algorithm, "kid": "one"}
        if self.algorithm in ("none", "HS256"):  # by hand: no library signs with a public key
            signed = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
            mac = hmac.digest(self.signs_with, signed.encode(), "sha256") if self.algorithm == "HS256" else b""
            return f"{signed}.{_base64(mac)}"
        return jwt.encode(header, claims, self.signs_with, registry=JWSRegistry(algorithms=[self.algorithm]))

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            **self.metadata,
        }


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        provider: Provider = self.server.provider  # type: ignore[attr-defined]
        match self.path.removeprefix("/realm"):
            case "/.well-known/openid-configuration":
                self._say(200, provider.discovery())
            case "/keys":
                self._say(200, KeySet(provider.keys).as_dict(private=False))
            case "/userinfo" if self.headers["Authorization"] == "Bearer opaque":
                self._say(200, provider.userinfo)
            case path if path.startswith("/authorize?"):
                provider.asked.append("/authorize")
                self.send_response(302)
                self.send_header("Location", provider.agree(provider.issuer + path))
                self.send_header("Content-Length", "0")
                self.end_headers()
            case _:
                self._say(404, {})

    def do_POST(self) -> None:
        provider: Provider = self.server.provider  # type: ignore[attr-defined]
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._say(*provider.token({k: v[0] for k, v in form.items()}, self.headers.get("Authorization", "")))

    def _say(self, status: int, body: Any) -> None:
        provider: Provider = self.server.provider  # type: ignore[attr-defined]
        provider.asked.append(self.path.removeprefix("/realm"))
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


__all__ = ["CLIENT", "SECRET", "ECKey", "Provider", "RSAKey"]
