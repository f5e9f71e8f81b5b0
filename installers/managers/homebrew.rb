class Nightjar < Formula
  desc "{summary}"
  url "{url}"
  sha256 "{sha256}"
  version "{version}"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on :linux

  def install
    bin.install "bin/nightjar"
    man1.install Dir["share/man/man1/*"]
    bash_completion.install "share/bash-completion/completions/nightjar"
    zsh_completion.install "share/zsh/site-functions/_nightjar"
    fish_completion.install "share/fish/vendor_completions.d/nightjar.fish"
  end

  test do
    assert_match version.to_s.split("-").first, shell_output("#{bin}/nightjar --version")
  end
end
