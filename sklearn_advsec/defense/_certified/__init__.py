"""Certificates, and the defenses that come with one."""
