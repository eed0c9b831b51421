"""Real servers of our own: Redis, PostgreSQL and RabbitMQ in a temporary folder on a free port.

A test may kill them, pause them, flush them and start them again; nobody else
uses them. Each is stopped by its process id: when it is closed, when the process
that started it ends, or, should that process be killed, by a janitor that
outlives it. The programs are those installed, or come in wheels.

    with PrivateRedis() as redis:
        redis.url                        # redis://127.0.0.1:21417/0
        redis.kill()
        redis.start()                    # the same URL, and empty
"""

from .postgres import PrivatePostgres, create_database, drop_database, libpq_url
from .process import PrivateServer, ServerDidNotStart, close_all, free_port
from .programs import MissingService
from .rabbitmq import PrivateRabbitmq
from .redis import PrivateRedis

__all__ = [
    "MissingService",
    "PrivatePostgres",
    "PrivateRabbitmq",
    "PrivateRedis",
    "PrivateServer",
    "ServerDidNotStart",
    "close_all",
    "create_database",
    "drop_database",
    "free_port",
    "libpq_url",
]
