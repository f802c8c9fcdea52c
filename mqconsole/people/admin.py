"""People in Django's admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest

from mqconsole.people.models import User

_FOR_SUPERUSERS = ("is_superuser", "user_permissions")


@admin.register(User)
class PersonAdmin(UserAdmin):
    """People, their roles, and whether they may sign in."""

    list_display = ("username", "full_name", "email", "roles", "is_active", "last_login")
    list_filter = ("is_active", "groups", "last_login")
    search_fields = ("username", "first_name", "last_name", "email")
    list_per_page = 50
    actions = ("disable", "enable")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        (
            "Access",
            {
                "fields": ("is_active", "groups", "is_superuser", "user_permissions"),
                "description": "Roles: viewer sees, operator acts, admin also manages people and clusters.",
            },
        ),
        ("Times", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "usable_password", "password1", "password2", "groups")}),)
    filter_horizontal = ("groups", "user_permissions")
    readonly_fields = ("last_login", "date_joined")

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return super().get_queryset(request).prefetch_related("groups")

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Only a superuser makes superusers: an admin must not be able to raise themselves."""
        fields = tuple(super().get_readonly_fields(request, obj))
        return fields if request.user.is_superuser else fields + _FOR_SUPERUSERS

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)

    @admin.display(description="name")
    def full_name(self, person: User) -> str:
        """First and last name."""
        return person.get_full_name()

    @admin.display(description="roles")
    def roles(self, person: User) -> str:
        """The person's groups."""
        names = [group.name for group in person.groups.all()]
        return ", ".join(["superuser"] * person.is_superuser + names) or "none"

    @admin.action(description="Disable: may not sign in, open pages close", permissions=["change"])
    def disable(self, request: HttpRequest, people: QuerySet[User]) -> None:
        """Lock people out. Not oneself, and no superusers unless one is a superuser."""
        self._set_active(request, people.exclude(username=request.user.get_username()), active=False)

    @admin.action(description="Enable: may sign in again", permissions=["change"])
    def enable(self, request: HttpRequest, people: QuerySet[User]) -> None:
        """Let people in again."""
        self._set_active(request, people, active=True)

    def _set_active(self, request: HttpRequest, people: QuerySet[User], *, active: bool) -> None:
        chosen = people.filter(is_active=not active)
        if not request.user.is_superuser:
            chosen = chosen.filter(is_superuser=False)
        changed = list(chosen)
        for person in changed:
            person.is_active = active
            person.save(update_fields=["is_active"])
            self.log_change(request, person, "Enabled." if active else "Disabled.")
        word = "enabled" if active else "disabled"
        messages.success(request, f"{len(changed)} {'person' if len(changed) == 1 else 'people'} {word}.")


def _may_touch(request: HttpRequest, obj: User | None) -> bool:
    return obj is None or not obj.is_superuser or request.user.is_superuser


if admin.site.is_registered(Group):
    admin.site.unregister(Group)


@admin.register(Group)
class RoleAdmin(admin.ModelAdmin):
    """Roles: what each may do, and who has it."""

    list_display = ("name", "people")
    search_fields = ("name",)
    filter_horizontal = ("permissions",)

    @admin.display(description="people")
    def people(self, group: Group) -> int:
        """How many have the role."""
        return group.user_set.count()
