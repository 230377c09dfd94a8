"""An authorization server of another family on loopback: django-oauth-toolkit, as its documentation sets it up.

Started with a folder for its database and the seconds that an access token lives; prints its port once it serves. Refresh tokens rotate without grace, a reuse ends the grant, and the old access token dies with the rotation,
not at its end. `GET /counts` says what it was asked, `GET /active?token=` whether an API would let a token in.
"""

import sys
import threading

import django
from django.conf import settings
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse

FOLDER, LIFETIME = sys.argv[1], int(sys.argv[2])

settings.configure(
    SECRET_KEY="of one test",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "oauth2_provider"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        f"{__name__}.logged_in",
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": f"{FOLDER}/database",
            # Waits for a writer instead of failing half way through a transaction.
            "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
        }
    },
    OAUTH2_PROVIDER={
        "ACCESS_TOKEN_EXPIRE_SECONDS": LIFETIME,
        "ROTATE_REFRESH_TOKEN": True,
        "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 0,
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
        "OAUTH2_VALIDATOR_CLASS": f"{__name__}.Validator",
        "SCOPES": {"llm.invoke": "Ask the model"},
    },
)
django.setup()

from django.contrib.auth import get_user_model, login  # noqa: E402
from django.urls import include, path  # noqa: E402
from oauth2_provider.models import get_access_token_model, get_application_model, get_refresh_token_model  # noqa: E402
from oauth2_provider.oauth2_validators import OAuth2Validator  # noqa: E402
from oauth2_provider.views import TokenView  # noqa: E402

counts = {"refresh_token": 0, "authorization_code": 0, "reuses": 0, "refused": []}
counting = threading.Lock()


class Validator(OAuth2Validator):
    """The one of the toolkit, watched."""

    def validate_refresh_token(self, refresh_token, client, request, *args, **kwargs):
        spent = get_refresh_token_model().objects.filter(token=refresh_token, revoked__isnull=False).exists()
        with counting:
            counts["reuses"] += spent
        return super().validate_refresh_token(refresh_token, client, request, *args, **kwargs)


class CountedTokenView(TokenView):
    """The one of the toolkit, counted."""

    def post(self, request, *args, **kwargs):
        response = super().post(request, *args, **kwargs)
        with counting:
            if response.status_code == 200:
                counts[request.POST["grant_type"]] += 1
            else:
                counts["refused"].append(response.content.decode())
        return response


def logged_in(get_response):
    """The person has logged in before."""

    def middleware(request):
        if request.path == "/authorize/" and not request.user.is_authenticated:
            login(request, get_user_model().objects.get())
        return get_response(request)

    return middleware


def shown_counts(_):
    with counting:
        return JsonResponse(counts)


def active(request):
    token = get_access_token_model().objects.filter(token=request.GET["token"]).first()
    return JsonResponse({"active": token is not None and token.is_valid(["llm.invoke"])})


urlpatterns = [
    path("counts", shown_counts),
    path("active", active),
    path("token/", CountedTokenView.as_view()),
    path("", include("oauth2_provider.urls", namespace="oauth2_provider")),
]


class Quiet(WSGIRequestHandler):
    """Errors of the server itself are shown by Django; requests are many."""

    def log_message(self, *_):
        pass


def main():
    call_command("migrate", verbosity=0)
    person = get_user_model().objects.create_user("anna", "anna@example.com")
    get_application_model().objects.create(
        client_id="pixy",
        client_type="public",
        authorization_grant_type="authorization-code",
        redirect_uris="http://127.0.0.1/paste http://127.0.0.1/callback",  # any port (RFC 8252 section 7.3)
        skip_authorization=True,
        user=person,
    )
    server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
    server.daemon_threads = True
    server.set_app(get_wsgi_application())
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
