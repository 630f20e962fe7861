"""The work of the demo: photographs, teachers, a student, and what it learned."""
