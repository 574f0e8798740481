"""Exported models: do they answer as their runs do, and how fast are they?"""
