"""Settings, all of them from the environment (docs: install), with defaults that work on one machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from mqconsole import environment

BASE_DIR = Path(__file__).resolve().parent.parent
MQ_HOME = Path(os.environ.get("MQ_HOME") or BASE_DIR / "var").expanduser().resolve()
MQ_HOME.mkdir(parents=True, exist_ok=True)

MQ_AMQP_PORT = environment.number("MQ_AMQP_PORT", 5672, 1, 65535)
MQ_HTTP_PORT = environment.number("MQ_HTTP_PORT", 8000, 1, 65535)
MQ_NODES = environment.number("MQ_NODES", 3, 1, 99)
MQ_BACKUPS = os.environ.get("MQ_BACKUPS") or str(MQ_HOME / "backups")
MQ_HTTPS = environment.flag("MQ_HTTPS")

DEBUG = environment.flag("MQ_DEBUG")
SECRET_KEY = environment.kept_secret("MQ_SECRET_KEY", MQ_HOME / "secret-key")

ALLOWED_HOSTS = environment.words("MQ_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
if "*" in ALLOWED_HOSTS:
    raise ImproperlyConfigured(
        "MQ_ALLOWED_HOSTS is '*', which would let any web site open this console's websockets. "
        "Name the hosts that people type into their browsers, separated by commas."
    )
CSRF_TRUSTED_ORIGINS = environment.words("MQ_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "daphne",
    "mqconsole.people",
    "brokers",
    "monitoring",
    "mqconsole.people.admin_config.ConsoleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "django_celery_beat",
]

MIDDLEWARE = [
    "mqconsole.headers.SecurityHeadersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "mqconsole.staticfiles.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "mqconsole.urls"
ASGI_APPLICATION = "mqconsole.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "builtins": ["brokers.templatetags.mq"],
        },
    },
]

# --- data ---------------------------------------------------------------------------------------------

_database: dict[str, Any] = dict(
    dj_database_url.parse(
        os.environ.get("DATABASE_URL") or f"sqlite:///{MQ_HOME / 'console.sqlite3'}",
        # Under ASGI each request has a thread of its own: a connection kept for the thread would only leak.
        conn_max_age=0,
    )
)
if _database["ENGINE"] == "django.db.backends.sqlite3":
    # Several processes write (web, worker, beat): readers must not block, writers wait their turn, and a
    # transaction that will write takes the lock when it begins, not in its middle where it could only fail.
    _database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=20000;",
    }
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = os.environ.get("REDIS_URL", "")
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}

# --- people -------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "people.User"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.ScryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "mqconsole.errors.csrf_failure"

# --- the wire -----------------------------------------------------------------------------------------

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if MQ_HTTPS:
    # "__Host-": the browser itself refuses such a cookie from a subdomain or over plain HTTP.
    SESSION_COOKIE_NAME = "__Host-sessionid"
    CSRF_COOKIE_NAME = "__Host-csrftoken"
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# --- language, time, static files -----------------------------------------------------------------------

LANGUAGE_CODE = "en"
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"
USE_THOUSAND_SEPARATOR = False

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = os.environ.get("MQ_STATIC_ROOT") or None  # for a web server that serves them; see collectstatic
WHITENOISE_USE_FINDERS = True  # nothing to collect before the first start
WHITENOISE_ALLOW_ALL_ORIGINS = False

# --- celery -------------------------------------------------------------------------------------------

CELERY_BROKER_URL = os.environ.get("MQ_CELERY_BROKER") or ";".join(
    f"amqp://guest:guest@127.0.0.1:{MQ_AMQP_PORT + i}//" for i in range(MQ_NODES)
)
CELERY_RESULT_BACKEND = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_DEFAULT_QUEUE = "mqconsole"
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_TIME_LIMIT = 300
CELERY_TIMEZONE = "UTC"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_HEARTBEAT = 10
CELERY_BROKER_TRANSPORT_OPTIONS = {"confirm_publish": True}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_SCHEDULE = {
    "check clusters": {
        "task": "monitoring.tasks.check_clusters",
        "schedule": 10.0,
        # A check that waited longer than the next one's turn tells nothing new.
        "options": {"expires": 10.0},
    },
    "fail abandoned operations": {"task": "brokers.tasks.fail_abandoned_operations", "schedule": 60.0},
    "resume operations": {
        "task": "brokers.tasks.resume_operations",
        "schedule": 5.0,
        "options": {"expires": 5.0},
    },
    "back up when it is due": {"task": "brokers.tasks.back_up_when_due", "schedule": 60.0},
    "drop old samples": {"task": "monitoring.tasks.drop_old_samples", "schedule": 3600.0},
}

# --- logs ---------------------------------------------------------------------------------------------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": os.environ.get("MQ_LOG_LEVEL", "INFO").upper()},
    "loggers": {
        "django.channels.server": {"level": "WARNING"},
        # Two lines for each periodic check would bury everything else. What fails is still told.
        "celery.app.trace": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "daphne": {"level": "WARNING"},
        "twisted": {"level": "WARNING"},
    },
}
