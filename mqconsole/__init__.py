"""The Django project: settings, people, the web and task applications, the supervisor of the local stack."""
