# The local cloud is a folder, which several deployments may share: whichever envelope is destroyed
# last, with no machine left, removes it.
resource "terraform_data" "cloud" {
  input = {
    deployment = var.deployment
    root       = var.root
    python     = var.python
  }

  provisioner "local-exec" {
    interpreter = [self.input.python, "-I", "-S", "-c"]
    command     = "import os; os.makedirs(os.environ['ROOT'] + '/instances', mode=0o700, exist_ok=True)"
    environment = { ROOT = self.input.root }
  }

  provisioner "local-exec" {
    when        = destroy
    on_failure  = continue
    interpreter = [self.input.python, "-I", "-S", "-c"]
    command     = "import os; [os.rmdir(os.environ['ROOT'] + name) for name in ('/instances', '/removing', '') if os.path.isdir(os.environ['ROOT'] + name)]"
    environment = { ROOT = self.input.root }
  }
}
