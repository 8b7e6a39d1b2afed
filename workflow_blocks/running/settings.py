"""Checks this plugin's settings before anything runs."""


def check_settings() -> None:
    """Checks the environment variables that say where and how the model runs.

    Call it after the settings of Inference are in the environment: it imports Inference.

    Raises:
        SettingsError: one is invalid, or does not work on this machine; the message names it.
    """
    from inference_models.configuration import DEFAULT_DEVICE

    from workflow_blocks.blocks.common.remote import load_remote_settings
    from workflow_blocks.inference_host.loading import check_runtime_settings
    from workflow_blocks.inference_host.runtime_choice import chosen_runtime

    chosen_runtime()
    if load_remote_settings().url is None:  # otherwise the model runs on another server
        check_runtime_settings(DEFAULT_DEVICE)
