"""An HTTP trigger for the admin and a daily timer that keep the webhook registration right."""

from register_webhook.blueprint import bp

__all__ = ["bp"]
