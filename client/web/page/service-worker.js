// Keeps the files of one version of the page, so that it opens at once, and without a network. It trains nothing: service
// workers live for minutes at most.

import { FILES, VERSION } from './files.js';

const NAME = `nightjar-${VERSION}`;

addEventListener('install', event => {
  // All or none: a version is never mixed with another.
  event.waitUntil(caches.open(NAME).then(cache => cache.addAll(FILES.map(file => new Request(file, { cache: 'reload' })))).then(() => skipWaiting()));
});

addEventListener('activate', event => {
  const old = async () => {
    const names = await caches.keys();
    await Promise.all(names.filter(name => name.startsWith('nightjar-') && name !== NAME).map(name => caches.delete(name)));
    await clients.claim();
  };
  event.waitUntil(old());
});

addEventListener('fetch', event => {
  const { request } = event, url = new URL(request.url), scope = new URL(registration.scope);
  const file = url.pathname.slice(scope.pathname.length);
  if (request.method !== 'GET' || url.origin !== scope.origin || !(file === '' || FILES.includes(file))) return;
  event.respondWith(caches.open(NAME).then(cache => cache.match(file || './')).then(kept => kept ?? fetch(request)));
});
