"""The people who use the console."""

from django.contrib.auth.models import AbstractUser


class User(AbstractUser):
    """A person. What they may do comes from their roles, which are groups (see ``roles``)."""

    def __str__(self) -> str:
        return self.get_full_name() or self.get_username()

    @property
    def role(self) -> str:
        """The strongest of the person's roles, for showing."""
        if self.is_superuser:
            return "admin"
        names = {group.name for group in self.groups.all()}
        return next((name for name in ("admin", "operator", "viewer") if name in names), "no role")
