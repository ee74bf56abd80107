"""What alembic runs: on the connection it is handed, within the caller's transaction."""

from alembic import context

from spine.database import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,
)
context.run_migrations()
