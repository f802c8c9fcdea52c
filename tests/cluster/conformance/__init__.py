"""AMQP features through real clients of three languages, one scenario each; see conftest.py."""
