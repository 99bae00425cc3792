"""What preflight takes."""

from pydantic import BaseModel, ConfigDict


class PreflightOptions(BaseModel):
    """What to look for.

    Attributes:
        namespace: Where the pipeline's steps run.
        train_backend: As `train` takes it; `auto` is `tfjob` here.
        deploy_backend: As `deploy` takes it; `auto` is `kserve` here.
        pvc: The volume claim that the steps and the training workers mount; empty for none.
        service_account: Whose permissions to ask about; empty for those of the client itself.
        in_pods: Whether the steps run in pods of their own.
    """

    model_config = ConfigDict(frozen=True)

    namespace: str
    train_backend: str = "auto"
    deploy_backend: str = "auto"
    pvc: str = ""
    service_account: str = ""
    in_pods: bool = True

    @property
    def backends(self) -> list[str]:
        return [
            "tfjob" if self.train_backend == "auto" else self.train_backend,
            "kserve" if self.deploy_backend == "auto" else self.deploy_backend,
        ]
