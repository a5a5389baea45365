// netsh.exe stands for the firewall's part of Windows' own netsh, which Wine's does not have. Its rules are the lines of
// C:\lab\firewall, or of the file that LAB_FIREWALL names: the words of the rule as they were given, apart by tabs.
//
//   netsh advfirewall firewall add rule name=N dir=in|out action=allow|block|bypass [KEY=VALUE]...
//   netsh advfirewall firewall delete rule name=N|all [KEY=VALUE]...
//
// What is in force is in the registry too, where Windows keeps it (MS-GPFAS 2.2.2.19), as far as rules of programs go.
//
// As the real one it ends with 1 for what it does not understand, and for a delete that meets no rule.
#include <windows.h>

#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "text.h"

namespace {

using Rule = std::vector<std::string>;

std::string file() { return environment("LAB_FIREWALL", "C:\\lab\\firewall"); }

std::string value(const Rule &rule, const std::string &key) {
    for (const std::string &word : rule) {
        if (lower(word).rfind(key + "=", 0) == 0) {
            return word.substr(key.size() + 1);
        }
    }
    return "";
}

std::vector<Rule> load() {
    std::vector<Rule> rules;
    std::ifstream in(file());
    for (std::string line; std::getline(in, line);) {
        if (!trim(line).empty()) {
            rules.push_back(split(trim(line), '\t'));
        }
    }
    return rules;
}

// mirror writes the rules into the registry.
bool mirror(const std::vector<Rule> &rules) {
    const char *path = "SYSTEM\\CurrentControlSet\\Services\\SharedAccess\\Parameters\\FirewallPolicy\\FirewallRules";
    LONG gone = RegDeleteTreeA(HKEY_LOCAL_MACHINE, path);
    HKEY key;
    if ((gone != ERROR_SUCCESS && gone != ERROR_FILE_NOT_FOUND) ||
        RegCreateKeyExA(HKEY_LOCAL_MACHINE, path, 0, nullptr, 0, KEY_SET_VALUE, nullptr, &key, nullptr) != ERROR_SUCCESS) {
        return false;
    }
    bool good = true;
    for (size_t i = 0; i < rules.size(); i++) {
        std::string text = "v2.30|Action=Allow|Active=TRUE|Dir=In|Protocol=6|LPort=" + value(rules[i], "localport") +
                           "|App=" + value(rules[i], "program") + "|Name=" + value(rules[i], "name") + "|";
        std::string name = "{lab-" + std::to_string(i) + "}";
        good = good && RegSetValueExA(key, name.c_str(), 0, REG_SZ, reinterpret_cast<const BYTE *>(text.c_str()),
                                      static_cast<DWORD>(text.size() + 1)) == ERROR_SUCCESS;
    }
    RegCloseKey(key);
    return good;
}

bool store(const std::vector<Rule> &rules) {
    std::ofstream out(file(), std::ios::trunc | std::ios::binary);
    for (const Rule &rule : rules) {
        for (size_t i = 0; i < rule.size(); i++) {
            out << (i > 0 ? "\t" : "") << rule[i];
        }
        out << "\n";
    }
    out.close();
    return out.good() && mirror(rules);
}

bool wellFormed(const Rule &words) {
    for (const std::string &word : words) {
        if (word.find('=') == std::string::npos || word.back() == '=') {
            return false;
        }
    }
    return !value(words, "name").empty();
}

int add(const Rule &rule) {
    std::string dir = lower(value(rule, "dir")), action = lower(value(rule, "action")), protocol = lower(value(rule, "protocol"));
    bool ports = !value(rule, "localport").empty() || !value(rule, "remoteport").empty();
    if (!wellFormed(rule) || lower(value(rule, "name")) == "all" || (dir != "in" && dir != "out") ||
        (action != "allow" && action != "block" && action != "bypass") || (ports && protocol != "tcp" && protocol != "udp")) {
        return 1;
    }
    std::vector<Rule> rules = load();
    rules.push_back(rule);
    return store(rules) ? 0 : 1;
}

bool meets(const Rule &rule, const Rule &wanted) {
    for (const std::string &word : wanted) {
        std::string key = lower(word.substr(0, word.find('='))), want = lower(word.substr(key.size() + 1));
        if (!(key == "name" && want == "all") && lower(value(rule, key)) != want) {
            return false;
        }
    }
    return true;
}

int remove(const Rule &wanted) {
    if (!wellFormed(wanted)) {
        return 1;
    }
    std::vector<Rule> rules = load(), kept;
    for (const Rule &rule : rules) {
        if (!meets(rule, wanted)) {
            kept.push_back(rule);
        }
    }
    if (kept.size() == rules.size()) {
        std::cout << "\nNo rules match the specified criteria.\n";
        return 1;
    }
    return store(kept) ? 0 : 1;
}

}  // namespace

int main(int count, char **given) {
    std::vector<std::string> words(given + 1, given + count);
    if (words.size() < 5 || words[0] != "advfirewall" || words[1] != "firewall" || words[3] != "rule") {
        return 1;
    }
    Rule rule(words.begin() + 4, words.end());
    if (words[2] == "add") {
        return add(rule);
    }
    return words[2] == "delete" ? remove(rule) : 1;
}
