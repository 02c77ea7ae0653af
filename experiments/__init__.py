"""The paper as data: recipes, profiles, the four tables, our ablations and the claims (YAML beside this file)."""
