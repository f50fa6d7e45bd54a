"""The HTTP trigger Partner Center calls: verify, enqueue, answer."""

from webhook_receiver.blueprint import bp

__all__ = ["bp"]
