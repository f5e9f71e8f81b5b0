; The installer for one user: no administrator's rights, nothing outside of their own folders. /S installs silently.
Unicode true
Target amd64-unicode
Name "{title}"
OutFile "{out}"
InstallDir "$LOCALAPPDATA\Programs\Nightjar"
RequestExecutionLevel user
SetCompressor /SOLID lzma
Icon "nightjar.ico"
UninstallIcon "nightjar.ico"
LicenseData "LICENSE-MIT"
VIProductVersion "{numbers}.0"
VIAddVersionKey "ProductName" "{title}"
VIAddVersionKey "FileDescription" "{summary}"
VIAddVersionKey "FileVersion" "{version}"
VIAddVersionKey "LegalCopyright" "MIT OR Apache-2.0"

!define UNINSTALL "Software\Microsoft\Windows\CurrentVersion\Uninstall\Nightjar"

Page license
Page instfiles
UninstPage uninstConfirm
UninstPage instfiles

Section
    SetShellVarContext current
    SetOutPath "$INSTDIR"
    ; An agent that runs holds its file: it ends first, and its task starts it again at the end. Exit codes are of no interest.
    IfFileExists "$INSTDIR\nightjar.exe" 0 +2
        nsExec::Exec '"$SYSDIR\schtasks.exe" /End /TN Nightjar'
    File "nightjar.exe"
    File "nightjar.ico"
    File "LICENSE-APACHE"
    File "LICENSE-MIT"
    WriteUninstaller "$INSTDIR\uninstall.exe"
    ; The console that the command needs is nobody's business.
    CreateShortcut "$SMPROGRAMS\Nightjar.lnk" "$SYSDIR\conhost.exe" '--headless "$INSTDIR\nightjar.exe" open --start' "$INSTDIR\nightjar.ico"
    WriteRegStr HKCU "${UNINSTALL}" "DisplayName" "{title}"
    WriteRegStr HKCU "${UNINSTALL}" "DisplayVersion" "{version}"
    WriteRegStr HKCU "${UNINSTALL}" "DisplayIcon" "$INSTDIR\nightjar.ico"
    WriteRegStr HKCU "${UNINSTALL}" "UninstallString" '"$INSTDIR\uninstall.exe"'
    WriteRegStr HKCU "${UNINSTALL}" "QuietUninstallString" '"$INSTDIR\uninstall.exe" /S'
    WriteRegDWORD HKCU "${UNINSTALL}" "NoModify" 1
    WriteRegDWORD HKCU "${UNINSTALL}" "NoRepair" 1
    nsExec::Exec '"$SYSDIR\schtasks.exe" /Run /TN Nightjar'
SectionEnd

Section "Uninstall"
    SetShellVarContext current
    ; Ends the agent, and its start at login. The device's key, membership and preferences stay in the user's own folders.
    nsExec::Exec '"$INSTDIR\nightjar.exe" service remove'
    Delete "$INSTDIR\nightjar.exe"
    Delete "$INSTDIR\nightjar.ico"
    Delete "$INSTDIR\LICENSE-APACHE"
    Delete "$INSTDIR\LICENSE-MIT"
    Delete "$INSTDIR\uninstall.exe"
    Delete "$SMPROGRAMS\Nightjar.lnk"
    ; Goes only if it is empty.
    RMDir "$INSTDIR"
    DeleteRegKey HKCU "${UNINSTALL}"
SectionEnd
