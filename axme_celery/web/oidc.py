"""Signing in with the accounts of the house: OpenID Connect, by the authorization code flow with PKCE.

Authlib does the protocol; it is the extra ``oidc``, and loaded only where ``axme_oidc_issuer`` is set. The provider is first
asked when the first person signs in, so that nothing here needs it to start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import BadInput, BadSetting
from ..texts import line

if TYPE_CHECKING:
    from flask import Request

    from ..config import Settings

log = logging.getLogger(__name__)

#: The provider has this many seconds for each thing it is asked.
TIMEOUT_SECONDS = 5.0
#: What it says of itself is asked for again after this long.
METADATA_SECONDS = 3600.0
#: Clocks may differ by this much.
LEEWAY_SECONDS = 60
#: People who began in more tabs than this have to begin again in the oldest: what each began is kept in one cookie.
BEGUN = 3
#: Signatures that only the provider can make. With the others a shared secret, or nothing, would be enough.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
#: What is taken of all the provider says of itself.
METADATA = ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint")

_NAME = "axme"


class NotSignedIn(Exception):
    """They are not signed in: why, for them to read, and the status to say it with."""

    def __init__(self, words: str, status: int = 403) -> None:
        super().__init__(words)
        self.words = words
        self.status = status


@dataclass(frozen=True)
class Person:
    """Who the provider says it is."""

    id: str
    groups: tuple[str, ...]


class Provider:
    """The provider that ``axme_oidc_issuer`` names."""

    def __init__(self, settings: Settings) -> None:
        """Asks the provider nothing. Raises BadSetting when the extra is not installed."""
        try:
            from authlib.integrations.flask_client import FlaskIntegration
        except ImportError as missing:
            raise BadSetting(
                f"axme_oidc_issuer needs more than the core ({missing}): pip install 'axme-celery[oidc]'"
            ) from missing
        self._settings = settings
        self._issuer = settings.oidc_issuer or ""
        #: Keeps what was begun in the session, each under its state.
        self._begun = FlaskIntegration(_NAME)
        self._found: tuple[float, dict[str, Any]] | None = None

    def begin(self, session: Any, back: str, after: str) -> str:
        """Where to send a person to sign in. ``back``: where the provider sends them; ``after``: where they were going.

        Raises NotSignedIn.
        """
        with _refusals():
            client = self._client()
            begun = client.create_authorization_url(back)
            kept = {name: begun[name] for name in ("nonce", "code_verifier")}
            _make_room(session)
            self._begun.set_state_data(session, begun["state"], {**kept, "redirect_uri": back, "after": after})
            return str(begun["url"])

    def begun(self, session: Any, request: Request) -> dict[str, str]:
        """What was begun in this browser and is now come back from; once. Raises NotSignedIn."""
        state = request.args.get("state", "")
        found = self._begun.get_state_data(session, state)
        self._begun.clear_state_data(session, state)
        if not isinstance(found, dict):
            raise NotSignedIn("This sign-in was not begun in this browser, or too long ago. Begin again.")
        return found

    def finish(self, begun: dict[str, str], request: Request) -> Person:
        """Who came back, once the provider has vouched for them. Raises NotSignedIn."""
        with _refusals():
            if request.args.get("iss", self._issuer) != self._issuer:
                raise NotSignedIn("The answer came from another provider than the one that was asked. Begin again.")
            if "error" in request.args:
                raise _refused_by_provider(request.args["error"])
            if not request.args.get("code"):
                raise NotSignedIn("Your provider sent no code to go on with. Begin again.")
            client = self._client()
            token = client.fetch_access_token(
                code=request.args["code"], redirect_uri=begun["redirect_uri"], code_verifier=begun["code_verifier"]
            )
            if "id_token" not in token:
                raise NotSignedIn("Your provider did not say who you are: it sent no id token.")
            claims = client.parse_id_token(
                token,
                nonce=begun["nonce"],
                claims_options={
                    "iss": {"essential": True, "value": self._issuer},
                    "aud": {"essential": True, "value": self._settings.oidc_client_id},
                },
                leeway=LEEWAY_SECONDS,
            )
            if claims.get("nonce") != begun["nonce"]:  # whatever the library makes of "nonce_supported"
                raise NotSignedIn("Your provider's answer is not to what was asked. Begin again.")
            return self._person(self._with_userinfo(client, token, claims))

    def _client(self) -> Any:
        """Authlib's client, with what the provider says of itself. Raises what ``requests`` does, and NotSignedIn."""
        from authlib.integrations.flask_client import FlaskOAuth2App

        metadata = self._metadata()
        algorithms = [each for each in metadata["algorithms"] if each in ALGORITHMS] or ["RS256"]
        scopes, methods = metadata["scopes"], metadata["methods"]
        wanted = ["openid", "profile", "email"]
        if self._settings.oidc_groups_claim in scopes:
            wanted.append(self._settings.oidc_groups_claim)
        return FlaskOAuth2App(
            self._begun,
            name=_NAME,
            client_id=self._settings.oidc_client_id,
            client_secret=self._settings.oidc_client_secret,
            client_kwargs={
                "scope": " ".join(dict.fromkeys(wanted)),
                "code_challenge_method": "S256",
                "default_timeout": TIMEOUT_SECONDS,
                "token_endpoint_auth_method": (
                    "client_secret_post"
                    if "client_secret_post" in methods and "client_secret_basic" not in methods
                    else "client_secret_basic"
                ),
            },
            issuer=self._issuer,
            id_token_signing_alg_values_supported=algorithms,
            **{name: metadata[name] for name in METADATA if name in metadata},
        )

    def _metadata(self) -> dict[str, Any]:
        if self._found is not None and time.monotonic() - self._found[0] < METADATA_SECONDS:
            return self._found[1]
        import requests

        response = requests.get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration", timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
        said = response.json()
        if not isinstance(said, dict) or said.get("issuer") != self._issuer:
            named = said.get("issuer") if isinstance(said, dict) else None
            log.error("axme_oidc_issuer is %r, and the provider there calls itself %r: they must be equal, to the last "
                      "character", self._issuer, named)  # fmt: skip
            raise _misconfigured()
        wrong = [name for name in METADATA[:3] if not isinstance(said.get(name), str)]
        if wrong:
            log.error("the provider at %s does not name its %s", self._issuer, " and ".join(wrong))
            raise _misconfigured()
        found = {name: said[name] for name in METADATA if isinstance(said.get(name), str)}
        found["algorithms"] = _texts(said.get("id_token_signing_alg_values_supported"))
        found["scopes"] = _texts(said.get("scopes_supported"))
        found["methods"] = _texts(said.get("token_endpoint_auth_methods_supported"))
        self._found = (time.monotonic(), found)
        return found

    def _with_userinfo(self, client: Any, token: Any, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """The claims, with what the provider keeps for those who ask again, if some that we need are not there."""
        needed = {self._settings.oidc_id_claim, self._settings.oidc_groups_claim}
        if needed <= claims.keys() or "userinfo_endpoint" not in client.server_metadata or "access_token" not in token:
            return claims
        said = client.userinfo(token=token)
        if said.get("sub") != claims["sub"]:
            raise NotSignedIn("Your provider's answers are about different people.")
        return {**said, **claims}

    def _person(self, claims: Mapping[str, Any]) -> Person:
        claim = self._settings.oidc_id_claim
        name = claims.get(claim)
        if name is None:
            raise NotSignedIn(f"Your provider did not send the claim {claim!r}, by which people are known here.")
        if claim == "email" and claims.get("email_verified") is not True:
            # Nor by another name: one person under two could answer twice.
            raise NotSignedIn("Your provider has not verified your e-mail address, by which people are known here.")
        groups = claims.get(self._settings.oidc_groups_claim)
        groups = [] if groups is None else [groups] if isinstance(groups, str) else groups
        if not isinstance(groups, list):
            raise NotSignedIn(f"Your provider's claim {self._settings.oidc_groups_claim!r} is no list of groups.")
        try:
            return Person(line(name, f"the claim {claim!r}"), tuple(line(each, "a group") for each in groups))
        except BadInput as odd:
            raise NotSignedIn(f"Your provider sent what cannot be a name: {odd}.") from None


@contextmanager
def _refusals() -> Iterator[None]:
    """What can go wrong between here and the provider, in words for the person; for the operator it is in the log."""
    import requests
    from authlib.common.errors import AuthlibBaseError
    from joserfc.errors import ClaimError, JoseError

    try:
        yield
    except NotSignedIn:
        raise
    except requests.RequestException as error:
        log.warning("the OpenID provider cannot be reached, or is out of order: %s", error)
        raise NotSignedIn("Your account provider cannot be reached. Try again soon.", 503) from error
    except ClaimError as error:
        log.warning("an id token was refused: %s", error)
        if set(error.claim.split(",")) & {"exp", "iat", "nbf"}:
            raise NotSignedIn(
                "Your provider's word has run out, or is not good yet. Begin again; if it stays so, the clock of this "
                "server or of the provider is wrong."
            ) from error
        raise NotSignedIn("Your provider's word is not for this sign-in. Begin again.") from error
    except JoseError as error:
        log.warning("an id token was refused: %s", error)
        raise NotSignedIn("Your provider's word could not be verified.") from error
    except AuthlibBaseError as error:
        raise _refused_by_provider(str(error.error), error.description) from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        log.warning("the OpenID provider answered what makes no sense: %r", error)
        raise NotSignedIn("Your provider's word could not be verified.") from error


def _refused_by_provider(code: str, description: str | None = None) -> NotSignedIn:
    log.warning("the OpenID provider refused: %r %r", code[:200], (description or "")[:200])
    if code in ("temporarily_unavailable", "server_error"):
        return NotSignedIn("Your account provider is out of order. Try again soon.", 503)
    if code == "invalid_client":
        return _misconfigured()
    if code == "invalid_grant":
        return NotSignedIn("This sign-in was used already, or took too long. Begin again.")
    return NotSignedIn("Your provider did not let you in, or you did not agree.")


def _misconfigured() -> NotSignedIn:
    return NotSignedIn("Signing in with accounts is not set up right; what is wrong is in the server's log.", 503)


def _make_room(session: Any) -> None:
    """Forget the oldest of what was begun and never finished."""
    begun = [name for name in session if str(name).startswith(f"_state_{_NAME}_")]
    begun.sort(key=lambda name: session[name].get("exp", 0))
    for name in begun[: max(0, len(begun) - BEGUN + 1)]:
        session.pop(name)


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
