"""What MLflow runs to serve a student of gkd: it is copied beside each logged model. The code is that of gkd, where it is served.

`mlflow models serve --env-manager local -m models:/NAME@champion`, in an environment with gkd[platform]: see docs/serving.md.
"""

from mlflow.models import set_model

try:
    from gkd_core.registry.served_student import ServedStudent
except ModuleNotFoundError as error:
    raise ImportError(
        f"{error}: this student is served by gkd, which is not here; install gkd[platform] and serve with --env-manager local"
    ) from None

set_model(ServedStudent())
