// Runs Renovate's own code on a repository: node renovate.js REPOSITORY CONFIG
// VERSION DIGEST. It prints as JSON what is wrong with the configuration, the
// files that it looks at with the dependencies that it finds there, and each
// file as Renovate leaves it when it moves one dependency after the other.
const fs = require('fs');
const path = require('path');
const [repository, configFile, newValue, newDigest] = process.argv.slice(2);
const renovate = (name) => require(path.join('renovate/dist', name));

const { GlobalConfig } = renovate('config/global.js');
const { validateConfig } = renovate('config/validation.js');
const { getMatchingFiles } = renovate('workers/repository/extract/file-match.js');
const { extractPackageFile } = renovate('modules/manager/index.js');
const { doAutoReplace } = renovate('workers/repository/update/branch/auto-replace.js');

async function main() {
  GlobalConfig.set({ localDir: repository });
  const config = JSON.parse(fs.readFileSync(configFile, 'utf8'));
  const { errors, warnings } = await validateConfig('repo', config);
  const all = fs.readdirSync(repository, { recursive: true }).map(String)
    .filter((name) => fs.statSync(path.join(repository, name)).isFile());
  const files = {};
  for (const packageFile of getMatchingFiles({ ...config.kubernetes, manager: 'kubernetes' }, all)) {
    const before = fs.readFileSync(path.join(repository, packageFile), 'utf8');
    const { deps } = await extractPackageFile('kubernetes', before, packageFile, {});
    let after = before;
    for (let depIndex = 0; depIndex < deps.length; depIndex++) {
      const upgrade = { ...deps[depIndex], manager: 'kubernetes', packageFile, depIndex, baseDeps: deps, newValue, newDigest };
      after = await doAutoReplace(upgrade, after, false);
      if (after === null) throw new Error(`Renovate can't move ${deps[depIndex].depName} in ${packageFile}`);
    }
    files[packageFile] = { deps, after };
  }
  console.log(JSON.stringify({ errors, warnings, files }));
}

main().catch((err) => { console.error(err); process.exit(1); });
